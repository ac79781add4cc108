//! What EC2 and STS answer, as far as it is read here. Field names are AWS's.
#![expect(clippy::struct_field_names, reason = "the names are AWS's")]

use serde::Deserialize;

/// A list: AWS wraps every member into `item`.
#[derive(Debug, Deserialize)]
pub(super) struct Set<T> {
    #[serde(default = "Vec::new")]
    pub(super) item: Vec<T>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

/// One page of a listing.
pub(super) trait Page {
    /// What is on it.
    type Item;
    /// Its items and the token of the next page.
    fn split(self) -> (Vec<Self::Item>, Option<String>);
}

macro_rules! page {
    ($page:ident, $field:ident, $item:ty) => {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $page {
            // Not optional: an answer without it is no empty listing.
            $field: Set<$item>,
            #[serde(default)]
            next_token: Option<String>,
        }
        impl Page for $page {
            type Item = $item;
            fn split(self) -> (Vec<$item>, Option<String>) {
                (self.$field.item, self.next_token.filter(|token| !token.is_empty()))
            }
        }
    };
}

page!(Groups, security_group_info, Group);
page!(Regions, region_info, RegionInfo);
page!(Reservations, reservation_set, Reservation);
page!(Subnets, subnet_set, Subnet);
page!(Volumes, volume_set, Volume);
page!(Vpcs, vpc_set, VpcInfo);
page!(Zones, availability_zone_info, ZoneInfo);

/// An answer of which nothing is read.
#[derive(Debug, Deserialize)]
pub(super) struct Done {}

#[derive(Debug, Deserialize)]
pub(super) struct Tag {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegionInfo {
    pub(super) region_name: String,
    #[serde(default)]
    pub(super) opt_in_status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ZoneInfo {
    pub(super) zone_name: String,
    #[serde(default)]
    pub(super) zone_state: String,
}

/// The state of an address block in a VPC or subnet.
#[derive(Debug, Default, Deserialize)]
pub(super) struct BlockState {
    #[serde(default)]
    state: String,
}

impl BlockState {
    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "disassociating" | "disassociated" | "failing" | "failed")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block4 {
    cidr_block: String,
    #[serde(default)]
    cidr_block_state: BlockState,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block6 {
    ipv6_cidr_block: String,
    #[serde(default)]
    ipv6_cidr_block_state: BlockState,
}

fn blocks<'a>(first: &'a str, four: &'a [Block4], six: &'a [Block6]) -> Vec<&'a str> {
    let four = four.iter().filter(|one| !one.cidr_block_state.is_over());
    let six = six.iter().filter(|one| !one.ipv6_cidr_block_state.is_over());
    std::iter::once(first)
        .chain(four.map(|one| one.cidr_block.as_str()))
        .chain(six.map(|one| one.ipv6_cidr_block.as_str()))
        .filter(|block| !block.is_empty())
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VpcInfo {
    pub(super) vpc_id: String,
    #[serde(default)]
    cidr_block: String,
    #[serde(default)]
    cidr_block_association_set: Set<Block4>,
    #[serde(default)]
    ipv6_cidr_block_association_set: Set<Block6>,
    #[serde(default)]
    pub(super) is_default: bool,
    #[serde(default)]
    pub(super) tag_set: Set<Tag>,
}

impl VpcInfo {
    pub(super) fn blocks(&self) -> Vec<&str> {
        blocks(
            &self.cidr_block,
            &self.cidr_block_association_set.item,
            &self.ipv6_cidr_block_association_set.item,
        )
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subnet {
    pub(super) subnet_id: String,
    pub(super) vpc_id: String,
    #[serde(default)]
    cidr_block: String,
    #[serde(default)]
    ipv6_cidr_block_association_set: Set<Block6>,
    #[serde(default)]
    pub(super) availability_zone: Option<String>,
    #[serde(default)]
    pub(super) tag_set: Set<Tag>,
}

impl Subnet {
    pub(super) fn blocks(&self) -> Vec<&str> {
        blocks(&self.cidr_block, &[], &self.ipv6_cidr_block_association_set.item)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reservation {
    #[serde(default)]
    pub(super) instances_set: Set<Instance>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StateName {
    #[serde(default)]
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Placement {
    #[serde(default)]
    pub(super) availability_zone: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupRef {
    pub(super) group_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ebs {
    #[serde(default)]
    pub(super) volume_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct BlockDevice {
    #[serde(default)]
    pub(super) ebs: Ebs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Association {
    #[serde(default)]
    pub(super) public_ip: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PrivateAddress {
    #[serde(default)]
    pub(super) private_ip_address: Option<String>,
    #[serde(default)]
    pub(super) association: Association,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Address6 {
    #[serde(default)]
    pub(super) ipv6_address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Interface {
    #[serde(default)]
    pub(super) group_set: Set<GroupRef>,
    #[serde(default)]
    pub(super) private_ip_addresses_set: Set<PrivateAddress>,
    #[serde(default)]
    pub(super) ipv6_addresses_set: Set<Address6>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instance {
    pub(super) instance_id: String,
    #[serde(default)]
    pub(super) instance_state: StateName,
    #[serde(default)]
    pub(super) instance_type: String,
    #[serde(default)]
    pub(super) image_id: Option<String>,
    #[serde(default)]
    pub(super) placement: Placement,
    #[serde(default)]
    pub(super) vpc_id: Option<String>,
    #[serde(default)]
    pub(super) subnet_id: Option<String>,
    #[serde(default)]
    pub(super) private_ip_address: Option<String>,
    #[serde(default)]
    pub(super) ip_address: Option<String>,
    #[serde(default)]
    pub(super) group_set: Set<GroupRef>,
    #[serde(default)]
    pub(super) network_interface_set: Set<Interface>,
    #[serde(default)]
    pub(super) block_device_mapping: Set<BlockDevice>,
    #[serde(default)]
    pub(super) tag_set: Set<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attachment {
    #[serde(default)]
    pub(super) instance_id: Option<String>,
    #[serde(default)]
    pub(super) status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    pub(super) volume_id: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) volume_type: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) attachment_set: Set<Attachment>,
    #[serde(default)]
    pub(super) availability_zone: Option<String>,
    #[serde(default)]
    pub(super) encrypted: bool,
    #[serde(default)]
    pub(super) tag_set: Set<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range4 {
    pub(super) cidr_ip: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Range6 {
    pub(super) cidr_ipv6: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pair {
    #[serde(default)]
    pub(super) user_id: String,
    pub(super) group_id: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PrefixList {
    pub(super) prefix_list_id: String,
    #[serde(default)]
    pub(super) description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Permission {
    pub(super) ip_protocol: String,
    #[serde(default)]
    pub(super) from_port: Option<i32>,
    #[serde(default)]
    pub(super) to_port: Option<i32>,
    #[serde(default)]
    pub(super) groups: Set<Pair>,
    #[serde(default)]
    pub(super) ip_ranges: Set<Range4>,
    #[serde(default)]
    pub(super) ipv6_ranges: Set<Range6>,
    #[serde(default)]
    pub(super) prefix_list_ids: Set<PrefixList>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Group {
    #[serde(default)]
    pub(super) owner_id: String,
    pub(super) group_id: String,
    pub(super) group_name: String,
    #[serde(default)]
    pub(super) group_description: String,
    #[serde(default)]
    pub(super) vpc_id: Option<String>,
    #[serde(default)]
    pub(super) ip_permissions: Set<Permission>,
    #[serde(default)]
    pub(super) ip_permissions_egress: Set<Permission>,
    #[serde(default)]
    pub(super) tag_set: Set<Tag>,
}

impl Group {
    /// The value of a tag.
    pub(super) fn tag(&self, key: &str) -> Option<&str> {
        self.tag_set.item.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    pub(super) group_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change {
    pub(super) instance_id: String,
    #[serde(default)]
    pub(super) current_state: StateName,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Changes {
    #[serde(default)]
    pub(super) instances_set: Set<Change>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CallerAnswer {
    pub(super) get_caller_identity_result: CallerIdentity,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CallerIdentity {
    pub(super) arn: String,
    pub(super) account: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AssumeAnswer {
    pub(super) assume_role_result: AssumeResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AssumeResult {
    pub(super) credentials: RoleCredentials,
}

/// Keys of a role, for a while. Not `Debug`: they are secrets.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RoleCredentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: String,
    pub(super) expiration: String,
}

impl std::fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleCredentials")
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}
