"""Suites, statistics, comparison and reports. Engines are passed in; no torch.

Ask        config · suites · plan (every episode and its key) · control (imposters) · estimate (dry run)
Play       run · limiter (how many at once) · retry · store (the ledger) · progress
Score      aggregate (episodes to results) · baseline · soul_index · rescore, recorded_judge (without playing)
Compare    stats · compare (paired) · judge_agreement
People     human_likeness/ · survey (answers as distributions) · reactions (of tau_usi's customers)
Show       results (results.json, tables) · report/ (one HTML page) · viewer (osim view) · export/ (other tools)
"""
