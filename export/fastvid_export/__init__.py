"""Training and export of fastvid's models: everything that needs torch.

The runtime never imports this package. `python -m fastvid_export --help` lists the commands.
"""
