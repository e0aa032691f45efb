"""The pages of `python -m esr view`: a small server that reads the store live, and the same pages as a folder of files.

data/ tells each page's data from a store and the page's address; pages/ shows them in a browser; neither knows the other's insides.
"""
