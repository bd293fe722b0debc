{{/* The name of an image, of one of the image values. */}}
{{- define "netra.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{/* What belongs under initContainers: (dict "netra" .Values.netra "serviceName" "shop"). */}}
{{- define "netra.initContainers" -}}
{{- $netra := .netra -}}
{{- $backend := "auto" -}}
{{- range $netra.init.args -}}
{{- if hasPrefix "--backend=" . -}}
{{- $backend = trimPrefix "--backend=" . -}}
{{- end -}}
{{- end -}}
{{- $hasIptables := contains "iptables" $netra.init.image.repository -}}
{{- if and $netra.enabled $netra.init.enabled }}
- name: netra-init
  image: {{ include "netra.image" $netra.init.image | quote }}
  imagePullPolicy: {{ $netra.init.image.pullPolicy }}
  args:
  - apply
  {{- range $netra.init.args }}
  - {{ . | quote }}
  {{- end }}
  {{- with $netra.env.NETRA_REROUTE_INTERFACES }}
  env:
  - name: NETRA_REROUTE_INTERFACES
    value: {{ . | quote }}
  {{- end }}
  resources:
    {{- toYaml $netra.init.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65534
    runAsGroup: 65534
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop:
      - ALL
      add:
      - NET_ADMIN
      {{- if or (eq $backend "iptables-legacy") (and (eq $backend "auto") $hasIptables) }}
      - NET_RAW
      {{- end }}
    seccompProfile:
      type: RuntimeDefault
{{- end }}
{{- if and $netra.enabled $netra.nativeSidecar }}
{{ include "netra.sidecar" . }}
{{- end }}
{{- end }}

{{/* What belongs under containers: nothing where the sidecar is a native one. */}}
{{- define "netra.containers" -}}
{{- if and .netra.enabled (not .netra.nativeSidecar) }}
{{ include "netra.sidecar" . }}
{{- end }}
{{- end }}

{{/* What belongs under volumes: nothing where no rules are mounted. */}}
{{- define "netra.volumes" -}}
{{- if and .netra.enabled .netra.rules.configMap }}
- name: netra-rules
  configMap:
    name: {{ .netra.rules.configMap | quote }}
{{- end }}
{{- end }}

{{- define "netra.sidecar" -}}
{{- $netra := .netra -}}
- name: netra
  image: {{ include "netra.image" $netra.image | quote }}
  imagePullPolicy: {{ $netra.image.pullPolicy }}
  {{- if $netra.nativeSidecar }}
  restartPolicy: Always
  {{- end }}
  env:
  - name: NETRA_SERVICE_NAME
    value: {{ required "netra: serviceName is required" .serviceName | quote }}
  {{- range $name, $value := $netra.env }}
  - name: {{ $name }}
    value: {{ $value | toString | quote }}
  {{- end }}
  {{- if $netra.rules.configMap }}
  - name: NETRA_RULES
    value: /etc/netra/rules
  {{- end }}
  {{- with $netra.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  ports:
  - name: netra-metrics
    containerPort: 14958
    protocol: TCP
  {{- if $netra.nativeSidecar }}
  startupProbe:
    httpGet:
      path: /ready
      port: 14958
    periodSeconds: 1
    failureThreshold: 120
  {{- end }}
  readinessProbe:
    httpGet:
      path: /ready
      port: 14958
    periodSeconds: 5
  livenessProbe:
    httpGet:
      path: /live
      port: 14958
    periodSeconds: 10
    failureThreshold: 3
  {{- if $netra.rules.configMap }}
  volumeMounts:
  - name: netra-rules
    mountPath: /etc/netra/rules
    readOnly: true
  {{- end }}
  resources:
    {{- toYaml $netra.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 1337
    runAsGroup: 1337
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop:
      - ALL
    seccompProfile:
      {{- if $netra.seccomp.localhostProfile }}
      type: Localhost
      localhostProfile: {{ $netra.seccomp.localhostProfile | quote }}
      {{- else }}
      type: RuntimeDefault
      {{- end }}
{{- end }}
