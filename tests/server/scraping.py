"""Reading the metrics of a server as Prometheus does."""

from __future__ import annotations

from collections import Counter
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

# Name and labels, sorted, of a sample.
Key = tuple[str, tuple[tuple[str, str], ...]]


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: dict[Key, float] = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name and these labels."""
        return self.samples[name, tuple(sorted(labels.items()))]

    def sums(self, name: str, *by: str) -> Counter[tuple[str, ...]]:
        """The samples of that name, summed by some of their labels."""
        sums = Counter[tuple[str, ...]]()
        for (found, labels), value in self.samples.items():
            if found == name:
                sums[tuple(dict(labels)[label] for label in by)] += int(value)
        return sums


def scrape(url: str) -> Scrape:
    """One scrape of an address such as http://127.0.0.1:9090/metrics."""
    with urlopen(url, timeout=30) as answer:
        return Scrape(answer.read().decode())
