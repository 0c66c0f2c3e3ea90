"""The data sets: each module here defines `DATA_SETS`, a mapping of kind (`data.kind`) to `DataSet`."""
