"""List the packages; everything else about the build is in pyproject.toml."""

from setuptools import find_packages, setup

packages = find_packages(include=["mer_bench", "mer_bench.*"])
for folder, name in {"models": "mer_bench_models", "datasets": "mer_bench_datasets"}.items():
    packages += [name, *(f"{name}.{package}" for package in find_packages(folder))]
setup(packages=packages)
