SUMMARY = "Event mesh for the edge: agent, gateway and command"
DESCRIPTION = "An agent takes events from devices by MQTT and HTTP and keeps them on disk before it acknowledges them; a gateway takes \
them from many agents and delivers them to subscribers."
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=1836efb2eb779966696f473ee8540542"

inherit cargo externalsrc systemd useradd

# The crates of Cargo.lock; written by cross/meta-godwit/crates.
require godwit-crates.inc

EXTERNALSRC = "${GODWIT_SOURCE}"
EXTERNALSRC_BUILD = "${WORKDIR}/build"
CARGO_BUILD_FLAGS += "-p godwit-agent -p godwit-gateway -p godwit-cli"

PACKAGES =+ "${PN}-agent ${PN}-gateway"

USERADD_PACKAGES = "${PN}-agent ${PN}-gateway"
GROUPADD_PARAM:${PN}-agent = "--system godwit"
GROUPADD_PARAM:${PN}-gateway = "--system godwit"
USERADD_PARAM:${PN}-agent = "--system --no-create-home --home-dir /var/lib/godwit --shell /sbin/nologin --gid godwit godwit"
USERADD_PARAM:${PN}-gateway = "--system --no-create-home --home-dir /var/lib/godwit --shell /sbin/nologin --gid godwit godwit"

SYSTEMD_PACKAGES = "${PN}-agent ${PN}-gateway"
SYSTEMD_SERVICE:${PN}-agent = "godwit-agent.service"
SYSTEMD_SERVICE:${PN}-gateway = "godwit-gateway.service"

do_install() {
    for program in godwit-agent godwit-gateway godwit; do
        install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/$program ${D}${bindir}/$program
    done
    for role in agent gateway; do
        install -D -m 0644 ${S}/config/systemd/godwit-$role.service ${D}${systemd_system_unitdir}/godwit-$role.service
        install -d ${D}${sysconfdir}/godwit
        sed "s#^data-dir = .*#data-dir = \"/var/lib/godwit/$role\"#" ${S}/config/$role.toml > ${D}${sysconfdir}/godwit/$role.toml
    done
}

FILES:${PN}-agent = "${bindir}/godwit-agent ${sysconfdir}/godwit/agent.toml ${systemd_system_unitdir}/godwit-agent.service"
FILES:${PN}-gateway = "${bindir}/godwit-gateway ${sysconfdir}/godwit/gateway.toml ${systemd_system_unitdir}/godwit-gateway.service"
CONFFILES:${PN}-agent = "${sysconfdir}/godwit/agent.toml"
CONFFILES:${PN}-gateway = "${sysconfdir}/godwit/gateway.toml"
RRECOMMENDS:${PN}-agent = "ca-certificates tzdata"
RRECOMMENDS:${PN}-gateway = "ca-certificates tzdata"
