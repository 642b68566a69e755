"""`edgeclient new`: a name in, a folder out that trains as it stands.

A project of each kind lies in a folder here, as its owner gets it, but for the name. Nothing of it is imported.
"""
