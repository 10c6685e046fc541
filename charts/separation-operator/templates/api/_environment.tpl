{{/* Environment of the API, from fields that pools have too; operator/src/apply/environment.rs sets it for workers. */}}
{{- define "separation.api.environment" -}}
{{- $api := .Values.api }}
{{- $kafka := $api.kafka }}
{{- $s3 := $api.storage.s3 }}
{{- $work := $api.storage.work -}}
- name: KAFKA_BOOTSTRAP_SERVERS
  value: {{ $kafka.bootstrapServers | quote }}
- name: KAFKA_SECURITY_PROTOCOL
  value: {{ printf "%s%s" (ternary "SASL_" "" (not (empty $kafka.sasl))) (ternary "SSL" "PLAINTEXT" (kindIs "map" $kafka.tls)) }}
- name: KAFKA_CLIENT_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- with $kafka.tls }}
{{- with .caSecretRef }}
- name: KAFKA_SSL_CA_LOCATION
  value: {{ printf "/etc/separation/kafka-ca/%s" (.key | default "ca.crt") | quote }}
{{- end }}
{{- with .clientCertificateSecretRef }}
- name: KAFKA_SSL_CERTIFICATE_LOCATION
  value: {{ printf "/etc/separation/kafka-client/%s" (.certificateKey | default "tls.crt") }}
- name: KAFKA_SSL_KEY_LOCATION
  value: {{ printf "/etc/separation/kafka-client/%s" (.privateKeyKey | default "tls.key") }}
{{- end }}
{{- end }}
{{- with $kafka.sasl }}
- name: KAFKA_SASL_MECHANISM
  value: {{ .mechanism | default "SCRAM-SHA-512" }}
- name: KAFKA_SASL_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ .secretRef.name | quote }}, key: {{ .secretRef.usernameKey | default "username" | quote }}}
- name: KAFKA_SASL_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .secretRef.name | quote }}, key: {{ .secretRef.passwordKey | default "password" | quote }}}
{{- end }}
- name: KAFKA_TASK_TOPIC
  value: {{ $api.processor.topic | quote }}
- name: KAFKA_PROCESSOR_GROUP_ID
  value: {{ $api.processor.group | quote }}
- name: S3_ENDPOINT_URL
  value: {{ $s3.endpoint | default "" | quote }}
{{- if or $s3.endpoint (ne $s3.region "auto") }}
- name: AWS_REGION
  value: {{ $s3.region | quote }}
{{- end }}
- name: S3_BUCKET_NAME
  value: {{ $s3.bucket | quote }}
- name: S3_PATH_STYLE
  value: {{ ternary $s3.pathStyle (not (empty $s3.endpoint)) (kindIs "bool" $s3.pathStyle) | quote }}
{{- with $s3.publicUrl }}
- name: S3_PUBLIC_DOMAIN
  value: {{ . | quote }}
{{- end }}
{{- with $s3.inputBuckets }}
- name: S3_INPUT_BUCKETS
  value: {{ join "," . | quote }}
{{- end }}
{{- with $s3.secretRef }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ .name | quote }}, key: {{ .accessKeyIdKey | default "AWS_ACCESS_KEY_ID" | quote }}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ .name | quote }}, key: {{ .secretAccessKeyKey | default "AWS_SECRET_ACCESS_KEY" | quote }}}
{{- end }}
{{- with $work.persistentVolumeClaim }}
- name: TEMP_DIR
  value: {{ printf "/shared/%s" (.inputFolder | default "temp") }}
- name: OUTPUT_DIR
  value: {{ printf "/shared/%s" (.outputFolder | default "output") }}
{{- else }}
- name: S3_STAGING
  value: {{ printf "s3://%s/%s" $s3.bucket $work.s3Prefix | quote }}
- name: TEMP_DIR
  value: /scratch/temp
- name: OUTPUT_DIR
  value: /scratch/output
{{- end }}
- name: TMPDIR
  value: /scratch
{{- with $api.outbound.allow }}
- name: OUTBOUND_ALLOW
  value: {{ join "," . | quote }}
{{- end }}
- name: API_HOST
  value: 0.0.0.0
- name: API_PORT
  value: "8000"
- name: ADMIN_ADDR
  value: 0.0.0.0:8081
- name: BASIC_AUTH_USERNAME
  value: {{ $api.auth.username | quote }}
- name: BASIC_AUTH_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $api.auth.secretRef.name | quote }}, key: {{ $api.auth.secretRef.key | quote }}}
{{- with $api.limits }}
- name: MAX_INPUT_BYTES
  value: {{ .maxInputBytes | int64 | toString | quote }}
- name: INPUT_TIMEOUT_SECONDS
  value: {{ .inputTimeoutSeconds | int64 | toString | quote }}
- name: INPUT_IDLE_SECONDS
  value: {{ .inputIdleSeconds | int64 | toString | quote }}
- name: MAX_CONCURRENT_INPUTS
  value: {{ .maxConcurrentInputs | int64 | toString | quote }}
{{- end }}
- name: LOG_LEVEL
  value: {{ $api.logLevel | quote }}
- name: LOG_FORMAT
  value: json
{{- end -}}
