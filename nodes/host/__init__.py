"""ComfyUI's side of the seam: its models, text encoders and CLIP_VISION for the method."""
