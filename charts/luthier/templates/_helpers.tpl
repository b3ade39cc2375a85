{{/* Values that an older chart did not have are unset after `helm upgrade --reuse-values`, so whatever came after the first
chart is read as `(.Values.group).name`, and unset means what was done before there was such a value. */}}

{{/* The name of the objects that the chart makes. */}}
{{- define "luthier.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if and .Values.nameOverride (not (contains .Values.nameOverride .Release.Name)) -}}
{{ printf "%s-%s" .Release.Name .Values.nameOverride | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ .Release.Name }}
{{- end }}
{{- end }}

{{- define "luthier.createServiceAccount" -}}
{{- if ne (toString .Values.serviceAccount.create) "false" }}yes{{ end }}
{{- end }}

{{- define "luthier.serviceAccountName" -}}
{{- $default := "default" }}
{{- if include "luthier.createServiceAccount" . }}{{ $default = include "luthier.fullname" . }}{{ end }}
{{- .Values.serviceAccount.name | default $default }}
{{- end }}

{{/* The full reference of an image, given (list . <image> <its usual name>): a text, or a map of its parts. */}}
{{- define "luthier.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 }}
{{- if kindIs "string" $image }}
{{- $image }}
{{- else }}
{{- $name := $image.repository | default (index . 2) }}
{{- with $image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name ($image.tag | default $root.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value as it was written: helm reads whole numbers as floats, and would write a million as 1e+06. */}}
{{- define "luthier.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* Requests and limits as the operator reads them: quantities are texts. */}}
{{- define "luthier.resources" -}}
{{- $out := dict }}
{{- range $what, $quantities := . }}
{{- $texts := dict }}
{{- range $name, $value := $quantities }}
{{- $_ := set $texts $name (include "luthier.text" $value) }}
{{- end }}
{{- $_ := set $out $what $texts }}
{{- end }}
{{- toJson $out }}
{{- end }}

{{- define "luthier.replicas" -}}
{{ kindIs "invalid" .Values.operator.replicas | ternary 1 .Values.operator.replicas }}
{{- end }}

{{- define "luthier.assignUser" -}}
{{- if ne (toString .Values.assignUser) "false" }}yes{{ end }}
{{- end }}

{{- define "luthier.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default "luthier" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "luthier.labels" -}}
{{- $own := include "luthier.ownLabels" . | fromYaml }}
{{- merge $own (.Values.commonLabels | default dict) | toYaml }}
{{- end }}

{{- define "luthier.ownLabels" -}}
{{ include "luthier.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Whether a kind of Prometheus' operator is made, given (list . <group of values> <kind>); "yes" or nothing. */}}
{{- define "luthier.monitoring" -}}
{{- $root := index . 0 }}{{ $values := index . 1 | default dict }}{{ $kind := index . 2 }}
{{- if $values.enabled }}
{{- $there := $root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind) }}
{{- $mode := $values.renderMode | default "skipIfMissing" }}
{{- if and (eq $mode "failIfMissing") (not $there) }}
{{- fail (printf "The cluster has no kind %s: install Prometheus' operator first, or set renderMode to skipIfMissing or alwaysRender." $kind) }}
{{- end }}
{{- if or $there (eq $mode "alwaysRender") }}yes{{ end }}
{{- end }}
{{- end }}

{{/* Namespaces in which pods get NetworkPolicies, as a JSON list. */}}
{{- define "luthier.policyNamespaces" -}}
{{ (.Values.networkPolicy).namespaces | default .Values.watchNamespaces | default list | uniq | toJson }}
{{- end }}

{{/* A rule for a port that may be reached by whom the values say, given (list <ports> <from>). */}}
{{- define "luthier.ingressRule" -}}
- ports:
    {{- range index . 0 }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with index . 1 }}
  from: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The operator's pods, as `from` of a NetworkPolicy in any namespace. */}}
{{- define "luthier.operatorPeer" -}}
- namespaceSelector:
    matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}
  podSelector:
    matchLabels: {{- include "luthier.selector" . | nindent 6 }}
{{- end }}

{{/* What the operator does in the namespaces that it watches; every verb is one that it uses. */}}
{{- define "luthier.rules" -}}
- apiGroups: [luthier.dev]
  resources: [finetunejobs, modeldeployments, batchpredictions]
  verbs: [get, list, watch]
# The finalizer of a FineTuneJob with deletionPolicy Delete.
- apiGroups: [luthier.dev]
  resources: [finetunejobs]
  verbs: [patch]
- apiGroups: [luthier.dev]
  resources: [finetunejobs/status, modeldeployments/status, batchpredictions/status]
  verbs: [patch]
# Owner references with blockOwnerDeletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [luthier.dev]
  resources: [finetunejobs/finalizers, modeldeployments/finalizers, batchpredictions/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# The headless Service by which the pods of a run with several nodes find each other, and that of a server's gRPC.
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
