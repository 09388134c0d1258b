"""The one seam to a diffusion model, and what runs on it: attention, LoRA, sampling, prompts."""
