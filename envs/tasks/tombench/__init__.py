"""ToMBench: bilingual theory-of-mind multiple choice."""
