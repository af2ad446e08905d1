"""Serving: the Gradio chat, later the gateway and the vLLM plugin."""
