"""GraphSmile: a graph between each two modalities, and tasks of sentiment and of its change beside the emotion."""
