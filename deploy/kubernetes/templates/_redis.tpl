{{/* host:port of Redis. */}}
{{- define "altlas.redisAddress" -}}
{{- if .Values.redis.external.url -}}
{{- $host := (urlParse .Values.redis.external.url).host -}}
{{- if regexMatch ":[0-9]+$" $host }}{{ $host }}{{ else }}{{ $host }}:6379{{ end -}}
{{- else if .Values.redis.clusterIP -}}
{{- .Values.redis.clusterIP }}:6379
{{- else -}}
{{- include "altlas.fullname" . }}-redis:6379
{{- end -}}
{{- end -}}

{{- define "altlas.redisPort" -}}
{{- regexFind "[0-9]+$" (include "altlas.redisAddress" .) -}}
{{- end -}}

{{/* Not empty where Redis has a name that must be looked up. */}}
{{- define "altlas.redisHasName" -}}
{{- if not (regexMatch "^([0-9.]+|\\[[0-9a-fA-F:]+\\]):[0-9]+$" (include "altlas.redisAddress" .)) -}}yes{{- end -}}
{{- end -}}

{{/* The environment by which a role finds Redis, as its own user. */}}
{{- define "altlas.redisEnvironment" -}}
{{- $parts := dict "scheme" "redis" "path" "/0" -}}
{{- if .root.Values.redis.external.url -}}
{{- $parts = urlParse .root.Values.redis.external.url -}}
{{- end -}}
- name: ALTLAS_TRANSPORT__REDIS_URL
  value: {{ printf "%s://%s@%s%s" $parts.scheme .component (include "altlas.redisAddress" .root) $parts.path | quote }}
- {name: ALTLAS_TRANSPORT__REDIS_PASSWORD_FILE, value: /etc/altlas/redis/password}
{{- end -}}

{{- define "altlas.redisMount" -}}
- {name: redis, mountPath: /etc/altlas/redis, readOnly: true}
{{- end -}}

{{- define "altlas.redisVolume" -}}
- name: redis
  secret:
    secretName: {{ include "altlas.redisSecret" (dict "root" .root "user" .component) }}
    defaultMode: 0440
    items: [{key: password, path: password}]
{{- end -}}

{{- define "altlas.redisSecret" -}}
{{- $named := index .root.Values.redis.passwordSecrets .user -}}
{{- if $named -}}
{{- $named -}}
{{- else if .root.Values.redis.external.url -}}
{{- fail (printf "redis.passwordSecrets.%s: with redis.external.url name the Secret that holds this user's password" .user) -}}
{{- else -}}
{{- printf "%s-redis-%s" (include "altlas.fullname" .root) .user -}}
{{- end -}}
{{- end -}}

{{/* The users of Redis that this release needs, space between. */}}
{{- define "altlas.redisUsers" -}}
coordinator evaluator
{{- if and .Values.redis.exporter.enabled (not .Values.redis.external.url) }} exporter{{ end }}
{{- if and .Values.evaluator.autoscaling.enabled .Values.evaluator.autoscaling.runs }} keda{{ end }}
{{- end -}}
