"""What leaves the house in a support bundle: nothing secret, and none of the user's own texts."""

from __future__ import annotations

import pytest

from luthier.support_bundle import REDACTED, redacted, redacted_text

pytestmark = pytest.mark.unit

REVIEW = "The battery died after two days and nobody in the shop ever answers my mails."


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI/K7MDENG"),
        ('{"password": "hunter2"}', "hunter2"),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("redis://user:hunter2@redis:6379", "hunter2"),
        ("HF_TOKEN=hf_abcdefghijklmnopqrstuvwx", "hf_abcdefghijklmnopqrstuvwx"),
        ("GET /x?X-Amz-Signature=0a1b2c3d4e&y=1", "0a1b2c3d4e"),
        ("eyJhbGciOiJSUzI1NiIs.eyJpc3MiOiJrdWJlcm5l.c2lnbmF0dXJl", "eyJpc3MiOiJrdWJlcm5l"),
    ],
)
def test_keys_and_passwords_are_masked_in_any_text(text: str, secret: str) -> None:
    assert secret not in redacted_text(text)
    assert REDACTED in redacted_text(text)


def test_long_quotations_are_replaced_by_their_length() -> None:
    assert redacted_text(f'row 7: "{REVIEW}" has no label') == f'row 7: "[{len(REVIEW)} characters]" has no label'
    kept = "no column 'label' in s3://data/reviews.csv"
    assert redacted_text(kept) == kept


def test_values_of_variables_are_replaced_unless_they_are_our_own_settings() -> None:
    environment = [
        {"name": "AWS_REGION", "value": "eu-west-1"},
        {"name": "LUTHIER_GRACE_S", "value": "120"},
        {"name": "LUTHIER_OUTPUT_AWS_SECRET_ACCESS_KEY", "value": "x"},
        {"name": "KEYS", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}}},
    ]
    values = [each.get("value") for each in redacted(environment)]
    assert values == [REDACTED, "120", REDACTED, None]


def test_managed_fields_and_the_last_applied_manifest_are_left_out() -> None:
    raw = {
        "metadata": {
            "managedFields": [{"manager": "x"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"},
        }
    }
    assert redacted(raw) == {"metadata": {"annotations": {"kept": "yes"}}}
