{{- define "altlas.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "altlas.instanceLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of an object; takes a dict of root and component. */}}
{{- define "altlas.labels" -}}
{{ include "altlas.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Labels by which a role's pods are found. */}}
{{- define "altlas.selector" -}}
{{ include "altlas.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "altlas.image" -}}
{{- $reference := printf "%saltlas-%s" .root.Values.image.prefix .component -}}
{{- $digest := (index .root.Values .component).digest -}}
{{- if $digest -}}
{{- printf "%s@%s" $reference $digest -}}
{{- else -}}
{{- printf "%s:%s" $reference (default .root.Chart.AppVersion .root.Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What every pod has: no API token, and nothing that PodSecurity's restricted level refuses. Takes a uid besides. */}}
{{- define "altlas.pod" -}}
serviceAccountName: {{ include "altlas.fullname" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 .uid }}
  runAsGroup: {{ default .uid .gid | int64 }}
  fsGroup: {{ default .uid .gid | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {{- include "altlas.seccomp" . | nindent 4 }}
{{- with (index .root.Values .component).nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (index .root.Values .component).tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "altlas.seccomp" -}}
{{- if and (eq .component "evaluator") .root.Values.evaluator.seccompLocalhostProfile -}}
type: Localhost
localhostProfile: {{ .root.Values.evaluator.seccompLocalhostProfile }}
{{- else -}}
type: RuntimeDefault
{{- end -}}
{{- end -}}

{{- define "altlas.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Requests and limits, with the role's GPUs. */}}
{{- define "altlas.resources" -}}
{{- $role := index .root.Values .component -}}
{{- $resources := deepCopy $role.resources -}}
{{- with $role.gpus -}}
{{- $limits := merge (dict "nvidia.com/gpu" (toString .)) (default dict $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Nothing is killed for waiting: whether a role gets on is a question of readiness, and of the alerts. */}}
{{- define "altlas.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{/* A value as a word. Numbers of a values file are floats to helm, which it writes as 5e+06 from a million on. */}}
{{- define "altlas.word" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* The settings that every role has: those of the values' config, and where its certificates are. */}}
{{- define "altlas.settings" -}}
{{- range $section, $keys := .root.Values.config }}
{{- range $key, $value := $keys }}
- name: {{ printf "ALTLAS_%s__%s" (upper $section) (upper $key) }}
  value: {{ include "altlas.word" $value | quote }}
{{- end }}
{{- end }}
{{- if .root.Values.tls.enabled }}
- {name: ALTLAS_SECURITY__TLS_CA, value: /etc/altlas/tls/ca.crt}
- {name: ALTLAS_SECURITY__TLS_CERT, value: /etc/altlas/tls/tls.crt}
- {name: ALTLAS_SECURITY__TLS_KEY, value: /etc/altlas/tls/tls.key}
{{- end }}
{{- end -}}

{{- define "altlas.tlsVolume" -}}
- name: tls
  secret:
    secretName: {{ required (printf "tls.secrets.%s: name the Secret with the role's ca.crt, tls.crt and tls.key" .component) (index .root.Values.tls.secrets .component) }}
    defaultMode: 0440
{{- end -}}

{{/* Threads of numeric libraries: as many as the container may use, not as the node has. */}}
{{- define "altlas.threads" -}}
- name: OMP_NUM_THREADS
  valueFrom: {resourceFieldRef: {resource: limits.cpu}}
- {name: NUMBA_CACHE_DIR, value: /tmp/numba}
{{- end -}}

{{- define "altlas.runsClaim" -}}
{{- default (printf "%s-runs" (include "altlas.fullname" .)) .Values.runs.existingClaim -}}
{{- end -}}

{{- define "altlas.disruptionBudget" -}}
{{- $maximum := (index .root.Values .component).maxUnavailable -}}
{{- if not (kindIs "invalid" $maximum) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "altlas.fullname" .root }}-{{ .component }}
  labels: {{- include "altlas.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ $maximum }}
  selector:
    matchLabels: {{- include "altlas.selector" . | nindent 6 }}
{{- end }}
{{- end -}}
