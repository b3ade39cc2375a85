{{- define "luthier.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{/* A value as it was written: helm reads whole numbers as floats, and would write a million as 1e+06. */}}
{{- define "luthier.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* Values that an older chart did not have are unset after `helm upgrade --reuse-values`. What is then done: */}}
{{- define "luthier.replicas" -}}
{{ kindIs "invalid" .Values.operator.replicas | ternary 1 .Values.operator.replicas }}
{{- end }}

{{- define "luthier.assignUser" -}}
{{- if ne (toString .Values.assignUser) "false" }}yes{{ end }}
{{- end }}

{{- define "luthier.selector" -}}
app.kubernetes.io/name: luthier
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "luthier.labels" -}}
{{ include "luthier.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What the operator does in the namespaces that it watches; every verb is one that it uses. */}}
{{- define "luthier.rules" -}}
- apiGroups: [luthier.dev]
  resources: [finetunejobs, modeldeployments]
  verbs: [get, list, watch]
# The finalizer of a FineTuneJob with deletionPolicy Delete.
- apiGroups: [luthier.dev]
  resources: [finetunejobs]
  verbs: [patch]
- apiGroups: [luthier.dev]
  resources: [finetunejobs/status, modeldeployments/status]
  verbs: [patch]
# Owner references with blockOwnerDeletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [luthier.dev]
  resources: [finetunejobs/finalizers, modeldeployments/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# The headless Service by which the pods of a run with several nodes find each other.
- apiGroups: [""]
  resources: [services]
  verbs: [create]
# Reading is for the Job controller's, which say why it may make no pod.
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
# The Lease by which one release works in a namespace.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [luthier-owner]
  verbs: [get, update]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [get, list, watch]
- apiGroups: [ray.io]
  resources: [rayservices]
  verbs: [get, list, watch, create, patch, delete]
# The number of a server's workers, which KubeRay does not take from an edited RayService.
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [patch]
# The way in from outside that `expose` asks for, and whether its Gateway is there.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
# Of servers: one replica at a time when nodes are drained.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, patch]
{{- end }}
