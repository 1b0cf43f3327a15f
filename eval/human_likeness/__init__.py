"""How far generated text is from human text, measure by measure, each beside the distance between two human halves.

text.py        words, sentences, normalisation
style.py       length, formatting, punctuation and case habits, slop rates
words.py       word choice: Jensen-Shannon, log-odds, Burrows' Delta; lexical diversity
spread.py      variance between people, self-similarity over samples (mode collapse)
classifier.py  can a classifier tell them apart? (grouped folds)
report.py      all of them with human–human floors and intervals
"""

from eval.human_likeness.report import HumanLikenessResult, Measure, Utterance, human_likeness

__all__ = ["HumanLikenessResult", "Measure", "Utterance", "human_likeness"]
