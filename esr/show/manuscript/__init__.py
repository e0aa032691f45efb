"""Everything that a text about the results is made of, in one folder: figures, tables, every number as a macro, and a page over all.

folder.write(root, into)     # from exported files alone; the same exports give the same bytes
expand.expanded(text, told)  # a plain-text abstract, every macro replaced by its number
"""
