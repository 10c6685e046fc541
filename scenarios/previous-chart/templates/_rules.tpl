{{/* Permissions of the operator for the pools of a namespace, or of all. */}}
{{- define "separation.rules" -}}
# Pools are watched. Only users write their spec.
- apiGroups: [separation.dev]
  resources: [separationpools]
  verbs: [list, watch]
# The status of a pool; the operator writes nothing else of it.
- apiGroups: [separation.dev]
  resources: [separationpools/status]
  verbs: [patch]
# Workers and APIs. Deployments are applied: a patch, which needs `create` for a new one. `delete` is for the API of a
# pool that no longer has one; the garbage collector deletes all others with their pool. The owner reference does not
# block the pool's deletion, so no permission for separationpools/finalizers is needed, even with
# OwnerReferencesPermissionEnforcement.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# The Service and the service account, without permissions, of a pool's API.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# Which pods are ready, draining or unscheduled; the patch sets the deletion cost of scale-down candidates.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# Secrets that pools name (Kafka, object store, webhooks, API clients), read one by one by name; never listed or watched.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
# Events about pools. Each is written once and never changed.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
