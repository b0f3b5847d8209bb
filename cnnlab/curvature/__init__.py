"""The Hessian's largest eigenvalue, the critical learning rate that follows, and whether a run will diverge."""
