"""KServe, KEDA and routes, simulated: pods that load nothing, and figures that are made up from what stands there."""
