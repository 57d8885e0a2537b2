"""What `embrief bench` needs of others' file formats, in a checkout only: it is not part of the package.

pip install gguf        # writes GGUF files of random weights, for the rows `runtimes`
"""
