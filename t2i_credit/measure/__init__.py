"""What is measured of models and methods; `intervals` says how sure it is."""
