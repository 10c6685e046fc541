{{/* Contradictory values, which values.schema.json cannot detect. Reports all problems together, each with its fix. */}}
{{- define "separation.checks" -}}
{{- $problems := list }}
{{- with .Values.api }}
{{- if .enabled }}
{{- if not .kafka.bootstrapServers }}
{{- $problems = append $problems "api.kafka.bootstrapServers is empty; fix: copy spec.kafka of the pool that processes the songs" }}
{{- end }}
{{- if and .kafka.sasl (eq (.kafka.sasl.mechanism | default "") "PLAIN") (not (kindIs "map" .kafka.tls)) }}
{{- $problems = append $problems "api.kafka.sasl.mechanism: PLAIN sends the password in clear text, and this connection is not encrypted; fix: add api.kafka.tls (tls: {} uses the system trust store), or use SCRAM-SHA-512" }}
{{- end }}
{{- if not .storage.s3.bucket }}
{{- $problems = append $problems "api.storage.s3.bucket is empty; fix: copy spec.storage.s3 of the pool that processes the songs" }}
{{- end }}
{{- if eq (empty .storage.work.s3Prefix) (empty .storage.work.persistentVolumeClaim) }}
{{- $problems = append $problems "api.storage.work: songs are staged in one place; fix: set exactly one of s3Prefix and persistentVolumeClaim, as in the pool that processes the songs" }}
{{- end }}
{{- if not .auth.secretRef.name }}
{{- $problems = append $problems "api.auth.secretRef.name is empty, so anyone could post songs; fix: name a Secret with the password" }}
{{- end }}
{{- if and .ingress.enabled (not .ingress.hosts) }}
{{- $problems = append $problems "api.ingress.hosts is empty; fix: name a host, as in hosts: [{host: songs.example}]" }}
{{- end }}
{{- else if .ingress.enabled }}
{{- $problems = append $problems "api.ingress.enabled without the API; fix: set api.enabled too" }}
{{- end }}
{{- end }}
{{- if $problems }}
{{- fail (printf "\n  %s" (join "\n  " $problems)) }}
{{- end }}
{{- end -}}
