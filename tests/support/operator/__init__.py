"""The operator as a process, and the world around it: a namespace, the node, KubeRay, pods that answer, API trouble.

operator_process starts it with the chart's rights. namespace plays the node, kuberay plays KubeRay, endpoints answer as
training pods do, crowd plays many FineTuneJobs. fault_proxy stands before the API server; lives are whole scripts that
run behind it. generated_specs makes random resources from the CRDs' schemas.
"""
