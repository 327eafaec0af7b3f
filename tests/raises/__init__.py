"""Cases for every error that the API reference documents, by what documents it."""

from tests.raises import data_cases, eval_cases, model_cases, training_cases, video_cases

CASES = [case for room in (model_cases, training_cases, data_cases, eval_cases, video_cases) for case in room.CASES]
