"""What a person sees and touches in JupyterLab. Widgets are used here alone."""
