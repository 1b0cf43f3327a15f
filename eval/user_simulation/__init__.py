"""tau-USI: is a simulated customer like real ones? Source: "Mind the Sim2Real Gap" (arXiv 2603.11245).

features.py  regular-expression features of the customer's turns, in four dimensions
usi.py       Dice similarity to people, calibration error of outcomes, survey agreement, the index
errors.py    D4 conditioned on the agent's errors: reactions where there is something to react to
"""
