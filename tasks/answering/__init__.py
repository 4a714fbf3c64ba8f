"""Answers from an index and a language model: prompts, generators, grounding, citations, the assistant."""
