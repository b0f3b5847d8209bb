"""What the user sees and touches in JupyterLab. Widgets are used here alone."""
