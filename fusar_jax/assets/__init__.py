"""Files that come with the package: the tiny base, made by `make base`."""
