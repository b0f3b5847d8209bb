"""What the user sees and touches in JupyterLab. Widgets are used here alone."""

import sys

if "ipykernel" in sys.modules:  # elsewhere there is no page, and widgets may be missing
    from cnnlab.dashboards.plotly_script import begin_plotly

    begin_plotly()
