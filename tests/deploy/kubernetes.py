"""Looks at what kustomize makes of deploy/kubernetes: the schemas' opinion is another program's, what fits together is told here.

    kubernetes.py MANIFESTS FOLDER

Writes the resources that the schemas know to FOLDER/known.yaml, and the configuration to FOLDER/toolgate.yaml.
"""

import sys
from pathlib import Path

import yaml

# Of the Prometheus operator; Kubernetes has no schema for them.
FOREIGN = {"ServiceMonitor"}


def main():
    manifests, folder = Path(sys.argv[1]), Path(sys.argv[2])
    resources = [resource for resource in yaml.safe_load_all(manifests.read_text()) if resource]
    kinds = {resource["kind"]: resource for resource in resources}
    wanted = {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceMonitor"}
    assert set(kinds) == wanted, f"{sorted(kinds)}"
    pods = kinds["Deployment"]["spec"]["template"]
    labels, pod = pods["metadata"]["labels"], pods["spec"]
    [container] = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    selects = lambda wanted: bool(wanted) and wanted.items() <= labels.items()

    assert kinds["Deployment"]["spec"]["replicas"] == 2
    assert selects(kinds["Deployment"]["spec"]["selector"]["matchLabels"])
    assert selects(kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    policy = kinds["NetworkPolicy"]["spec"]
    assert selects(policy["podSelector"]["matchLabels"])
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == set(ports)
    services = [resource for resource in resources if resource["kind"] == "Service"]
    for service in services:
        assert selects(service["spec"]["selector"]), service
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"]), service
    monitor = kinds["ServiceMonitor"]["spec"]
    watched = [service for service in services if monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()]
    assert [port["name"] for service in watched for port in service["spec"]["ports"]] == ["admin"], watched
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} == {"admin"}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports, probe
    assert container["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]
    [volume] = pod["volumes"]
    assert volume["configMap"]["name"] == kinds["ConfigMap"]["metadata"]["name"]

    text = kinds["ConfigMap"]["data"]["toolgate.yaml"]
    configuration = yaml.safe_load(text)
    listens = {int(listener["address"].rpartition(":")[2]) for listener in configuration["listeners"]}
    assert listens | {int(configuration["admin"]["address"].rpartition(":")[2])} == set(ports.values())
    given = {variable["name"] for variable in container["env"]}
    assert {key["env"] for key in configuration["sessions"]["keys"]} <= given
    seconds = lambda text: int(text.removesuffix("s"))
    needed = container["lifecycle"]["preStop"]["sleep"]["seconds"] + 5 + sum(seconds(configuration["drain"][key]) for key in ("delay", "timeout"))
    assert needed < pod["terminationGracePeriodSeconds"], f"a stop may take {needed} s"

    (folder / "toolgate.yaml").write_text(text)
    known = [resource for resource in resources if resource["kind"] not in FOREIGN]
    (folder / "known.yaml").write_text(yaml.safe_dump_all(known))
    print(f"{len(known)} resources for the schemas, {len(resources) - len(known)} of the Prometheus operator's left out there")


if __name__ == "__main__":
    main()
