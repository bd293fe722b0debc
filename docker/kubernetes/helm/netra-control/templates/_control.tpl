{{- define "control.labels" -}}
app.kubernetes.io/name: netra-control
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
