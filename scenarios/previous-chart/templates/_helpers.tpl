{{/* Name of the chart, or nameOverride. */}}
{{- define "separation.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of most objects: the release's, and the chart's unless the release's contains it. At most 53 characters, so
that suffixes fit into 63. */}}
{{- define "separation.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains (include "separation.name" .) .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "separation.name" .) | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Selector labels of a component's pods; they never change. Takes root and component. */}}
{{- define "separation.selector" -}}
app.kubernetes.io/name: {{ include "separation.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of any object. Takes root and component. */}}
{{- define "separation.labels" -}}
{{ include "separation.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: separation
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image's full name. Takes root and image. */}}
{{- define "separation.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "separation.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "separation.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Default placement of a component's pods: on different nodes if possible. Takes root and component. */}}
{{- define "separation.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "separation.selector" . | nindent 6 }}
{{- end -}}

{{/* The lease and the watched namespaces, equal for the operator and `helm test`. */}}
{{- define "separation.scope" -}}
- name: LEASE_NAME
  value: {{ include "separation.fullname" . | quote }}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- with .Values.watchNamespaces }}
- name: WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- end -}}

{{/* Brokers to which the operator authenticates with its own identity, as its option: HOST@NAMESPACE, or HOST for all. */}}
{{- define "separation.identityBrokers" -}}
{{- $brokers := list -}}
{{- range .Values.identity.allowedBrokers -}}
{{- $host := .host -}}
{{- range .namespaces -}}
{{- $brokers = append $brokers (ternary $host (printf "%s@%s" $host .) (eq . "*")) -}}
{{- end -}}
{{- end -}}
{{- join "," $brokers -}}
{{- end -}}

{{/* Service accounts whose tokens the operator requests, as its option: NAMESPACE/NAME. */}}
{{- define "separation.tokenAccounts" -}}
{{- $accounts := list -}}
{{- range .Values.identity.serviceAccounts -}}
{{- $accounts = append $accounts (printf "%s/%s" .namespace .name) -}}
{{- end -}}
{{- join "," $accounts -}}
{{- end -}}
