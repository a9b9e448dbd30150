"""Settings: what is read from where, what is refused in which words, and that credentials stay out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from promenade.settings import Settings, WrongSettings, ports_from, split_address
from promenade.supervisor import embedded_settings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("PROMENADE_"):
            monkeypatch.delenv(name)


def with_credentials(data: Path) -> Settings:
    return Settings(
        data=data,
        s3_access_key=SecretStr("an-access-key"),
        s3_secret_key=SecretStr("a-secret-key"),
        qdrant_api_key=SecretStr("a-qdrant-key"),
        broker="one:9092, two:9093",
        s3_secure=True,
    )


def test_a_child_process_reads_the_very_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_credentials(tmp_path)
    for name, value in settings.environment(secrets=True).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings
    assert Settings().brokers == ["one:9092", "two:9093"]


def test_without_leave_no_credential_is_among_the_variables(tmp_path: Path) -> None:
    text = str(with_credentials(tmp_path).environment(secrets=False))
    assert "one:9092" in text
    for credential in ("an-access-key", "a-secret-key", "a-qdrant-key"):
        assert credential not in text


def test_printed_settings_show_no_credential(tmp_path: Path) -> None:
    settings = with_credentials(tmp_path)
    for text in (str(settings), repr(settings), settings.model_dump_json()):
        assert "a-secret-key" not in text


def test_an_address_without_a_port_is_refused_with_an_example() -> None:
    for wrong in ("localhost", "localhost:", ":9092", "localhost:0", "localhost:70000", "http://localhost"):
        with pytest.raises(WrongSettings, match="for example"):
            Settings(broker=wrong)
    with pytest.raises(WrongSettings, match="broker is empty"):
        Settings(broker=" , ")
    assert split_address("[::1]:80") == ("::1", 80)


def test_half_a_pair_of_credentials_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMENADE_S3_ACCESS_KEY", "an-access-key")
    with pytest.raises(WrongSettings, match="PROMENADE_S3_SECRET_KEY") as caught:
        Settings()
    assert "an-access-key" not in str(caught.value)
    monkeypatch.delenv("PROMENADE_S3_ACCESS_KEY")
    with pytest.raises(WrongSettings, match="PROMENADE_BROKER_USER"):
        Settings(broker_security="SASL_SSL")


def test_a_web_address_needs_its_scheme_and_an_empty_one_means_local() -> None:
    with pytest.raises(WrongSettings, match="not a web address"):
        Settings(qdrant_url="localhost:6333")
    assert Settings(qdrant_url="").qdrant_url is None
    assert Settings(qdrant_url="https://q.example:6333/").qdrant_url == "https://q.example:6333"


def test_ports_laid_out_from_a_number_do_not_collide() -> None:
    settings = Settings(**ports_from(20000))
    ports = [*settings.embedded_ports().values(), *settings.store_inner_ports]
    assert len(set(ports)) == len(ports) == 14
    assert min(ports) == 20000
    assert max(ports) < 20020
    for wrong in (80, 65530):
        with pytest.raises(ValueError, match="give a number from 1024"):
            ports_from(wrong)


def test_copies_of_a_topic_are_the_brokers_own_affair_unless_told(tmp_path: Path) -> None:
    assert Settings().replication == -1
    assert Settings(replication=3).replication == 3
    with pytest.raises(WrongSettings, match="0 copies"):
        Settings(replication=0)
    # The embedded broker is one, whatever the environment says.
    assert embedded_settings(tmp_path, replication=3).replication == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTP_PORT", "abc", "PROMENADE_HTTP_PORT: 'abc' is not a whole number from 1 to 65535."),
        ("HTTP_PORT", "80000", "PROMENADE_HTTP_PORT: '80000' is not a whole number from 1 to 65535."),
        ("REPLICATION", "many", "PROMENADE_REPLICATION: 'many' is not a whole number, -1 or more."),
        ("RECONCILE_SECONDS", "0", "PROMENADE_RECONCILE_SECONDS: '0' is not a number above 0."),
        ("S3_SECURE", "perhaps", "PROMENADE_S3_SECURE: 'perhaps' is not true or false."),
        ("GROUP", "", "PROMENADE_GROUP: is empty."),
        (
            "BROKER_SECURITY",
            "some",
            "PROMENADE_BROKER_SECURITY: 'some' is not 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'.",
        ),
        (
            "BUCKET",
            "A",
            "PROMENADE_BUCKET: 'A' is not a name of 3 to 63 lower-case letters, digits, dots and hyphens, with no "
            "dot or hyphen at its ends.",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_its_variable(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PROMENADE_{name}", value)
    with pytest.raises(WrongSettings) as caught:
        Settings()
    assert str(caught.value) == said


def test_several_wrong_settings_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMENADE_HTTP_PORT", "x")
    monkeypatch.setenv("PROMENADE_PARTITIONS", "0")
    with pytest.raises(WrongSettings, match=r"^PROMENADE_PARTITIONS: .*; PROMENADE_HTTP_PORT: [^\n]*$"):
        Settings()
