"""Plan before submit: what a recipe needs of a cluster, whether it fits, and what would. No torch, no network.

cluster.py       what the cluster has
memory.py        bytes of one rank, by component
alternatives.py  the verdict, and legal layouts that fit
"""
