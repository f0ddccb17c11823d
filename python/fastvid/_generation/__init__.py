"""What `Generator` is made of: prompts, requests, sampling, latents."""
