"""An ASR adapter for SmolLM2-135M-Instruct, a frozen LLM."""
