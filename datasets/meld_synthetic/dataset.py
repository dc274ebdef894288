"""The dataset plugin of meld-synthetic."""

from __future__ import annotations

from mer_bench.data.dataset import Dataset, PreparationRequest, StoreContent
from mer_bench.errors import SettingError

from .generator import generate


class MeldSynthetic(Dataset):
    """Dialogues from the generating model under the dataset's own seed; needs no file and no option."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        if request.options:
            raise SettingError(f"meld-synthetic takes no option, but {', '.join(sorted(request.options))} was given.")
        return generate()
