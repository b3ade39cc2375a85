"""The lead is writing this file right now (from 04:56): plan_modeldeployment(resource, observed, now, defaults) -> Plan."""
