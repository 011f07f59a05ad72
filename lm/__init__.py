"""Language-model machinery: backbones, tokenizers, forests, log-probs, probes."""
