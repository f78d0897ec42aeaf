"""A server of completions for prompt embeddings, in vLLM's wire format."""
