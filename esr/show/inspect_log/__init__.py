"""Results as logs of inspect (inspect.aisi.org.uk): one `.eval` file an arm, which `inspect view` and `read_eval_log` open.

The format is a zip of JSON and is written here; inspect itself is not needed. The same latent and question is the same sample id in
every arm, and the k-th of their seeds the k-th epoch, so that logs are held against each other sample by sample.
"""
