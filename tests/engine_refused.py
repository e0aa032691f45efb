"""Steering specs that a server refuses, and what it says of each."""

BAD = {
    "[": "is not JSON",
    "[]": "not a JSON object",
    '{"opps": []}': "no field 'opps' in the steering spec; nearest: ops",
    '{"ops": [{"op": "add", "sae": "erly", "i": 1, "v": 1.0}]}': "no SAE 'erly'",
    '{"ops": [{"op": "add", "sae": "early", "i": 96, "v": 1.0}]}': "no latent 96 in SAE 'early', which has 96",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": NaN}]}': "not a finite number",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1e300}]}': "not a finite number",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": "2"}]}': "not a number",
    '{"ops": [{"op": "scale", "sae": "early", "i": 1, "v": 1.0}]}': "no intervention 'scale'",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0, "layer": 3}]}': "trained after block 1, not 3",
    '{"ops": [{"op": "clamp", "sae": "early", "i": 1, "v": 1.0}, {"op": "clamp", "sae": "early", "i": 1, "v": 2.0}]}': "clamped twice",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0}], "scope": "[3,3)"}': "holds no position",
    '{"capture": {"sae": "late", "mode": "max"}}': "needs an `id`",
    '{"id": "x", "capture": {"sae": "late", "mode": "topk"}}': "top 0",
    '{"id": "x", "capture": {"sae": "late", "mode": "most"}}': "no capture mode 'most'",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": %s}]}' % (10**400): "not a finite number",
    "[" * 100_000: "is not JSON",
    '{"ops": [], "ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0}]}': "has the key 'ops' twice",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0, "v": 0.0}]}': "has the key 'v' twice",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1e-60}]}': "which is 0 in 32 bits",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0}], "scope": "[4000,5000)"}': "touches no position",
    '{"ops": [{"op": "add", "sae": "early", "i": 1, "v": 1.0}], "scope": "[99999,)"}': "touches no position",
}
"""Of what is in the wrong place or makes no sense: a piece of the sentence."""
MISPLACED = {
    "at the top": ('{"sae": %s}', "stands at the top of the request as 'sae' and goes into vllm_xargs.sae"),
    "at the top, misspelt": ('{"SAE_steering": %s}', "stands at the top of the request as 'SAE_steering'"),
    "in capitals": ('{"vllm_xargs": {"SAE": %s}}', "no field 'SAE' in vllm_xargs; nearest: sae"),
    "in the client's own field": ('{"extra_body": {"vllm_xargs": {"sae": %s}}}', "stands in 'extra_body'"),
    "in vLLM's inner field": ('{"extra_args": {"sae": %s}}', "stands in 'extra_args'"),
    "twice": ('{"vllm_xargs": {"sae": %s, "sae": "{}"}}', "has the key 'sae' twice"),
    "in the first of two": ('{"vllm_xargs": {"sae": %s}, "vllm_xargs": {}}', "has the key 'vllm_xargs' twice"),
    "beside another key twice": ('{"vllm_xargs": {"sae": %s}, "max_tokens": 3}', "has the key 'max_tokens' twice"),
}
"""Of what stands where no route reads it: the field, and a piece of the sentence."""
