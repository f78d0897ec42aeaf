"""What Transformers calls the key/value cache, among a model's arguments and in its outputs.

``cache``; before 5.24 it was ``past_key_values``, which later versions warn of and 5.40 will not know.
"""

import inspect

from transformers.masking_utils import create_causal_mask

CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
