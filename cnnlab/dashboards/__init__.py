"""What the user sees and touches in JupyterLab. Widgets are used here alone."""

from cnnlab.dashboards.plotly_script import begin_plotly

begin_plotly()
