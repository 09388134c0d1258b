"""ComfyUI's entry point."""
